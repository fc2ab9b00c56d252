"""An embedded Conductor-compatible server with faults: for tests, examples and the demo. Needs extra ``dev-server``."""

from conductor_adapter.settings.server_settings import Credentials

from .faults import FaultControl, Faults
from .outcome import FinishedRun
from .process import DevServerProcess
from .serve import serve
from .server import DevServer

__all__ = ["Credentials", "DevServer", "DevServerProcess", "FaultControl", "Faults", "FinishedRun", "serve"]
