import math
import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter.settings.loading import (
    server_from_option,
    servers_from_env,
    servers_from_options,
    servers_from_toml,
    unread_credentials,
)
from conductor_adapter.settings.server_settings import Credentials, ServerSettings, check_servers

SECRET = "s3cr3t-value"  # noqa: S105 - what must never be shown


def env(url=None, key=None, secret=None, name=None):
    """The environment variables that are given."""
    given_values = {
        "CONDUCTOR_SERVER_URL": url, "CONDUCTOR_AUTH_KEY": key, "CONDUCTOR_AUTH_SECRET": secret,
        "CONDUCTOR_SERVER_NAME": name,
    }  # fmt: skip
    return {variable: value for variable, value in given_values.items() if value is not None}


def auth_of(servers):
    """Key and secret of each server."""
    return [server.auth and (server.auth.key, server.auth.secret) for server in servers]


# One server.


def test_a_server_needs_a_name_and_a_url_only():
    """The defaults are: no auth whatever the environment says, weight 1, no limits, certificates are checked."""
    server = ServerSettings("eu", "http://eu:8080/api/")

    assert server.url == "http://eu:8080/api"
    assert ServerSettings("eu", "http://eu/X").url == "http://eu/X"
    assert (server.auth, server.weight, server.domain, server.max_units, server.verify) == (None, 1, None, None, True)


def test_d27_the_environment_is_not_consulted_for_a_server_from_code(monkeypatch):
    """A server without auth gets nobody else's credentials."""
    monkeypatch.setenv("CONDUCTOR_AUTH_KEY", "k")
    monkeypatch.setenv("CONDUCTOR_AUTH_SECRET", SECRET)

    assert ServerSettings("eu", "http://eu/api").auth is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"), ("   ", "empty"), ("eu:8080/api", "'eu:8080/api'.*http://eu:8080/api"),
        ("//eu/api", "must begin with http"),
        ("ftp://eu/api", "'ftp://eu/api'.*for example http://eu/api$"), ("http:/eu", "must begin with http"),
        ("http://", "no usable host"), ("http://:8080/api", "no usable host"), ("http://e u/api", "no usable host"),
        ("http://eu\n.evil/api", "no usable host"), ("http://eu:99999/api", "is invalid"),
        ("http://eu:0/api", "no usable host"), ("http://eu:port/api", "is invalid"), ("http://[::1/api", "is invalid"),
        ("http://.../api", r"'http://\.\.\./api' has no usable host"), ("http://a..b/api", "no usable host"),
        ("http://./api", "no usable host"), ("http://.a/api", "no usable host"), ("http://a../api", "no usable host"),
        ("http://h\udce4/api", r"'http://h\\udce4/api' has no usable host"),
        (f"http://{'a' * 64}.de/api", "no usable host"), (f"http://{'ä' * 60}/api", "no usable host"),
        (f"http://{'a.' * 127}a/api", "no usable host"), (f"http://{'ä.' * 100}a/api", "no usable host"),
        ("http://h/\udce4/api", "not valid UTF-8"),
        ("http://eu/api?x=1", "end with its path"), ("http://eu/api#x", "end with its path"),
        ("http://a/api,http://b/api", "contains several URLs.*CONDUCTOR_SERVER_URL"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_meant_is_refused_by_name(url, says):
    """Each wrong URL gets one error that shows it and the way out."""
    with pytest.raises(ValueError, match=says) as caught:
        ServerSettings("eu", url)
    assert "http" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "host", ["a.", "a_b", "1.2.3.4", "[::1]", "bücher.example", "xn--bcher-kva.example", "a" * 63, "a." * 126 + "a"]
)
def test_a_host_that_can_be_looked_up_is_taken(host):
    """Names of containers, names with letters beyond ASCII, addresses, and the longest name there may be."""
    assert ServerSettings("eu", f"http://{host}:8080/api").url == f"http://{host}:8080/api"


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@eu/api", f"http://user:{SECRET}/x@eu/api", f"http://{SECRET}@eu:port/api",
        f"user:{SECRET}@eu/api", f"http://eu/api?key={SECRET}", f"http://eu/api#{SECRET}",
        f"http://a:{SECRET}@b/api,http://c/api",
    ],
)  # fmt: skip
def test_credentials_in_a_url_are_refused_and_not_shown(url):
    """A URL is shown in logs and errors, so it may not hold a password, and the refusal does not repeat it."""
    with pytest.raises(ValueError, match="url") as caught:
        ServerSettings("eu", url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"http://u:{SECRET}@eu/api", "'…@eu/api'"), (f"http://eu/api?key={SECRET}", "'http://eu/api?…'"),
        (f"http://u:\n{SECRET}@eu/api", "'…@eu/api'"), (f"http://eu/api#\n{SECRET}", "'http://eu/api?…'"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_url_with_secrets_can_be_recognised(url, shown):
    """The rest of the URL is shown as it is, so that people find it in their settings."""
    with pytest.raises(ValueError, match="url") as caught:
        ServerSettings("eu", url)
    assert shown in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", "a b", "a,b", "a=b", "a\tb", "a\x00", "\x1b[31m"])
def test_a_name_that_other_places_would_misread_is_refused(name):
    """Names stand in lists, options and log lines: no spaces, commas, equal signs or control characters."""
    with pytest.raises(ValueError, match="server name"):
        ServerSettings(name, "http://eu/api")


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"reserve": "1"}, TypeError, "reserve must be a whole number, not str"),
        ({"reserve": -1}, ValueError, "reserve -1 must be a whole number, 0 or more"),
        ({"reserve": True}, ValueError, "reserve True must be"),
        ({"reserve": 3, "max_units": 2}, ValueError, "reserve 3 is above max_units 2: lower reserve"),
    ],
)
def test_reserve_that_cannot_be_is_refused(options, kind, text):
    """A whole number from 0 that the server may hold."""
    assert ServerSettings("eu", "http://eu/api", reserve=2, max_units=2).reserve == 2
    with pytest.raises(kind, match=text):
        ServerSettings("eu", "http://eu/api", **options)


@pytest.mark.parametrize("option", ["weight", "max_units"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1.5, 2.0, True, False])
def test_a_number_that_makes_no_sense_is_refused(option, value):
    """Weights and limits are whole numbers from 1; the error names the option and the value."""
    with pytest.raises(ValueError, match=f"{option} {value!r}.*whole number"):
        ServerSettings("eu", "http://eu/api", **{option: value})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": 7}, "name must be a str, not int$"), ({"url": 7}, "url must be a str.* not int$"),
        ({"weight": "2"}, "weight must be.* not str$"), ({"domain": 7}, "domain must be a str.* not int$"),
        ({"verify": 7}, "verify must be.* not int$"), ({"headers": 7}, "^headers must"),
        ({"headers": {"a": 1}}, "^headers must"), ({"max_units": "2"}, "max_units must be.* not str$"),
        ({"weight": None}, "must be.* not NoneType$"), ({"auth": "k:s"}, "auth must be.* not str$"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_a_type_error(options, says):
    """Each option says which type it wants."""
    with pytest.raises(TypeError, match=says):
        ServerSettings(**{"name": "eu", "url": "http://eu/api", **options})


def test_a_ca_bundle_that_is_not_there_is_refused(tmp_path):
    """A missing bundle is found when the settings are made, not at the first call."""
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ValueError, match=r"verify .*ca\.pem"):
        ServerSettings("eu", "https://eu/api", verify=missing)
    (tmp_path / "ca.pem").touch()
    assert ServerSettings("eu", "https://eu/api", verify=missing).verify == missing


@pytest.mark.parametrize("headers", [{"A b": "x"}, {"": "x"}, {"A": f"x\r\nEvil: {SECRET}"}, {"A": "é"}])
def test_headers_that_would_break_the_request_are_refused(headers):
    """A header must not smuggle in another one; its value is not shown."""
    with pytest.raises(ValueError, match="header") as caught:
        ServerSettings("eu", "http://eu/api", headers=headers)
    assert SECRET not in str(caught.value)


def test_headers_may_be_made_by_a_function():
    """It is kept as it is; an async one is refused, because nobody would await it."""

    def make():
        return {"X-Gate": "open"}

    async def make_later():
        return make()

    server = ServerSettings("eu", "http://eu/api", headers=make)
    assert server.headers is make
    assert server == attrs.evolve(server, weight=1)
    assert {server: 1}[server] == 1
    assert "headers" not in repr(server)
    assert pickle.loads(pickle.dumps(attrs.evolve(server, headers=dict))).headers is dict  # noqa: S301 - our own
    with pytest.raises(TypeError, match="headers is an async function"):
        ServerSettings("eu", "http://eu/api", headers=make_later)


def test_secrets_never_show():
    """Neither repr nor str of settings and credentials holds a key, a secret or a gateway's password."""
    auth = Credentials("my-key", SECRET)
    server = ServerSettings("eu", "http://eu/api", auth=auth, headers={"Authorization": f"Basic {SECRET}"})
    shown = f"{server!r} {server} {auth!r} {auth} {attrs.evolve(server, weight=2)!r}"

    assert SECRET not in shown
    assert "my-key" not in shown


def test_auth_of_a_wrong_type_is_refused_without_showing_it():
    """A pair in the place of Credentials is told so, without quoting the secret."""
    with pytest.raises(TypeError, match="Credentials") as caught:
        ServerSettings("eu", "http://eu/api", auth=("k", SECRET))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "secret", "says"),
    [("k", "", "with a key but no secret"), ("", "s", "with a secret but no key"), ("", "", "no key")],
)
def test_a_key_needs_a_secret(key, secret, says):
    """Half of the credentials are none."""
    with pytest.raises(ValueError, match=says):
        Credentials(key, secret)
    with pytest.raises(TypeError, match="key must be a str, not int"):
        Credentials(7, "s")


def test_settings_can_be_copied_changed_pickled_and_compared():
    """They travel to worker processes as they are."""
    server = ServerSettings("eu", "http://eu/api", auth=Credentials("k", "s"), headers={"A": "b"}, domain="")

    assert pickle.loads(pickle.dumps(server)) == server  # noqa: S301 - our own
    assert hash(attrs.evolve(server)) == hash(server)
    assert server.domain is None


@pytest.mark.parametrize(
    ("url", "hinted"),
    [("http://eu:8080", True), ("http://eu/API", True), ("http://eu/api/tasks", True), ("http://eu/x/api/", False)],
)
def test_a_url_without_api_gets_a_hint_and_no_error(url, hinted):
    """Conductor's API usually lives under /api: another path is allowed and hinted at."""
    hint = ServerSettings("eu", url).hint

    assert (hint is not None) is hinted
    assert not hinted or ("'eu'" in hint and hint.endswith(f" {url}/api"))


def test_a_domain_that_no_url_can_carry_is_refused():
    """Half a character would make every poll fail."""
    with pytest.raises(ValueError, match=r"domain 'a\\udce4' contains a lone surrogate"):
        ServerSettings("eu", "http://eu/api", domain="a\udce4")


# Several servers.


def test_servers_that_can_be_told_apart_pass():
    """What comes out is what went in, as a tuple, in order."""
    servers = [ServerSettings("eu", "http://eu/api"), ServerSettings("us", "https://eu/api")]

    assert check_servers(iter(servers)) == tuple(servers)


def test_d28_no_server_is_an_error():
    """A worker without a server would wait for ever: the error says where servers come from."""
    with pytest.raises(ValueError, match=r"--server NAME=.*--config.*CONDUCTOR_SERVER_URL.*servers=\[Serv"):
        check_servers([])


def test_d29_a_name_names_one_server():
    """Two servers of one name could not be told apart."""
    with pytest.raises(ValueError, match="duplicate server name 'eu'"):
        check_servers([ServerSettings("eu", "http://a/api"), ServerSettings("eu", "http://b/api")])


@pytest.mark.parametrize(
    "other", ["http://eu/api/", "http://EU:80/api", "HTTP://eu/api///", "http://eu:80/api"],
)  # fmt: skip
def test_d29_a_url_is_served_once(other):
    """The same address in another spelling is the same server."""
    with pytest.raises(ValueError, match="'a' and 'b' have the same URL"):
        check_servers([ServerSettings("a", "http://eu/api"), ServerSettings("b", other)])


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        (ServerSettings("a", "http://a"), "must be a list of ServerSettings"),
        ("http://a/api", "must be a list of ServerSettings"),
        (["http://a/api"], "must be ServerSettings, not str"),
        ([None], "must be ServerSettings, not NoneType"),
    ],
)
def test_d29_only_settings_are_servers(servers, says):
    """A single server, a URL or anything else in the place of a list of settings is told so."""
    with pytest.raises(TypeError, match=says):
        check_servers(servers)


# The environment.


@pytest.mark.parametrize("url", [None, "", "  ", ",", " , "])
def test_an_environment_without_a_url_names_no_server(url):
    """Nothing is guessed, not even localhost."""
    with pytest.raises(ValueError, match="no server is configured"):
        servers_from_env(env(url))


def test_one_url_makes_one_server():
    """The plain single-server environment works unchanged."""
    (server,) = servers_from_env(env("http://eu:8080/api"))

    assert (server.name, server.url, server.auth) == ("eu:8080", "http://eu:8080/api", None)


def test_d25_with_one_url_nothing_is_split():
    """A single server's key, secret and name may hold commas, as a single-server environment always allowed."""
    (server,) = servers_from_env(env("http://eu/api", "k,1", "s,,2", "eu"))

    assert auth_of([server]) == [("k,1", "s,,2")]


def test_several_urls_with_credentials_in_the_same_order():
    """The n-th key and secret belong to the n-th URL; spaces around entries do not count."""
    servers = servers_from_env(env(" http://eu/api , http://us/api", "k1 , k2", " s1,s2", "eu, us"))

    assert [(server.name, server.url) for server in servers] == [("eu", "http://eu/api"), ("us", "http://us/api")]
    assert auth_of(servers) == [("k1", "s1"), ("k2", "s2")]


def test_empty_url_entries_are_ignored():
    """A comma too many does not make a server."""
    assert len(servers_from_env(env("http://eu/api,,http://us/api,", "k1,k2", "s1,s2"))) == 2


def test_d24_an_empty_position_means_no_auth():
    """Servers with and without auth can stand in one list."""
    servers = servers_from_env(env("http://a/api,http://b/api,http://c/api", "k1,,k3", "s1,,s3"))

    assert auth_of(servers) == [("k1", "s1"), None, ("k3", "s3")]
    assert auth_of(servers_from_env(env("http://a/api,http://b/api", "k1,", "s1,"))) == [("k1", "s1"), None]


@pytest.mark.parametrize(
    ("values", "variable", "count"),
    [
        ({"key": "k1,k2", "secret": "s1,s2,s3"}, "CONDUCTOR_AUTH_KEY", 2),
        ({"key": "k1,k2,k3", "secret": SECRET}, "CONDUCTOR_AUTH_SECRET", 1),
        ({"name": "a,b,c,d"}, "CONDUCTOR_SERVER_NAME", 4),
    ],
)
def test_counts_that_differ_are_an_error_that_names_both(values, variable, count):
    """Guessing which key is missing would send a secret to the wrong server."""
    with pytest.raises(ValueError, match=f"CONDUCTOR_SERVER_URL has 3 entries but {variable} has {count}") as caught:
        servers_from_env(env("http://a/api,http://b/api,http://c/api", **values))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "secret", "says"),
    [
        ("k1,k2", "s1,", "'b' has an entry in CONDUCTOR_AUTH_KEY but none in CONDUCTOR_AUTH_SECRET"),
        (",k2", f"{SECRET},s2", "'a' has an entry in CONDUCTOR_AUTH_SECRET but none in CONDUCTOR_AUTH_KEY"),
        ("k1,k2", None, "'a' has an entry in CONDUCTOR_AUTH_KEY"), (None, "s1,s2", "none in CONDUCTOR_AUTH_KEY"),
    ],
)  # fmt: skip
def test_a_key_without_a_secret_is_an_error_that_names_the_server(key, secret, says):
    """Half of the credentials are an error, never no auth."""
    with pytest.raises(ValueError, match=says) as caught:
        servers_from_env(env("http://a,http://b", key, secret))
    assert SECRET not in str(caught.value)


def test_names_left_out_are_made_from_host_and_port():
    """They are short, unique, and a server keeps its name when another host joins."""
    urls = "http://eu:8080/api,http://us/api,http://one:1/a,http://one:1/b,http://[::1]:8080/api"
    names = [server.name for server in servers_from_env(env(urls))]

    assert names == ["eu:8080", "us", "http:one:1/a", "http:one:1/b", "[::1]:8080"]
    urls = "http://one/X/,http://one/b=1"
    assert [server.name for server in servers_from_env(env(urls))] == ["http:one/X", "http:one/b-1"]
    assert [server.name for server in servers_from_env(env("http://a/api,http://b/api", name=",bee"))] == ["a", "bee"]


hosts = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3)
parts = st.tuples(
    st.sampled_from(["http", "https"]), st.sampled_from(["a", "b"]), st.sampled_from(["", ":80", ":8080"]),
    st.sampled_from(["", "/api", "/x"]),
)  # fmt: skip


@given(st.lists(parts, min_size=1, max_size=5, unique=True))
def test_names_made_from_urls_are_always_unique(chosen):
    """Whatever the URLs, made-up names never clash unless the URLs do."""
    urls = ",".join(f"{scheme}://{host}{port}{path}" for scheme, host, port, path in chosen)
    try:
        servers = servers_from_env(env(urls))
    except ValueError as error:
        assert "have the same URL" in str(error)  # noqa: PT017 - one of two allowed endings
        return
    assert len({server.name for server in servers}) == len(chosen)


@given(
    st.dictionaries(st.sampled_from(list(env("", "", "", ""))), st.text(st.sampled_from("ab,:/ @=http.1"), max_size=20))
)
def test_any_environment_gives_servers_or_one_value_error(environ):
    """No text in the environment leads to anything but usable servers or a ValueError."""
    try:
        assert servers_from_env(environ)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - one of two allowed endings


# The command line.


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (["KEY", "SECRET"], "has CONDUCTOR_AUTH_KEY, CONDUCTOR_AUTH_SECRET, which no server reads: server "),
        (["KEY_UE"], "_KEY_UE, which no server reads: server 'eu' reads"),
        (["SECRET_USA"], ": server 'us-1' reads"),
        (["KEY_us_1"], " server 'us-1' reads CONDUCTOR_AUTH_KEY_US_1 and CONDUCTOR_AUTH_SECRET_US_1"),
        (["KEY_OPEN", "KEY"], "has CONDUCTOR_AUTH_KEY, which"),
    ],
)  # fmt: skip
def test_credentials_that_no_server_reads_are_told(variables, says):
    """The variable and the right one of the likeliest server without credentials are named, no value is."""
    servers = [
        ServerSettings("open", "http://a/api", auth=Credentials("k", SECRET)),
        ServerSettings("eu", "http://eu/api"),
        ServerSettings("us-1", "http://us/api"),
    ]
    hint = unread_credentials(servers, {f"CONDUCTOR_AUTH_{name}": SECRET for name in variables})

    assert says in hint
    assert SECRET not in hint


@pytest.mark.parametrize(
    ("auth", "environ"),
    [
        (None, {"CONDUCTOR_SERVER_URL": "x", "CONDUCTOR_AUTH_KEYS": "x", "MY_CONDUCTOR_AUTH_KEY": "x", "PATH": "x"}),
        (None, {"CONDUCTOR_AUTH_KEY": "", "CONDUCTOR_AUTH_KEY_EU": ""}),
        (Credentials("k", SECRET), {"CONDUCTOR_AUTH_KEY": "x", "CONDUCTOR_AUTH_KEY_UE": "x"}),
    ],
)  # fmt: skip
def test_nothing_is_told_of_other_variables_or_when_nothing_lacks_credentials(auth, environ):
    """A shared environment may hold more than these servers need."""
    assert unread_credentials([ServerSettings("eu", "http://eu/api", auth=auth)], environ) is None


def test_an_option_is_name_and_url():
    """Everything behind the first equal sign is the URL; credentials come from variables of that name."""
    environ = {"CONDUCTOR_AUTH_KEY_EU_1": "k", "CONDUCTOR_AUTH_SECRET_EU_1": SECRET, "CONDUCTOR_AUTH_KEY": "other"}
    server = server_from_option("eu-1=http://eu/api", environ)

    assert (server.name, server.url, auth_of([server])) == ("eu-1", "http://eu/api", [("k", SECRET)])
    assert server_from_option("us=http://us/api", environ).auth is None
    assert server_from_option("us=http://us/a=b", environ).url == "http://us/a=b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://eu/api", "has no name: write NAME=URL"), ("eu", "has no name"), ("=http://eu/api", "server name ''"),
        ("http://eu/api?a=b", "has no name"), ("eu=", "url is empty"), ("eu=eu:8080", "must begin with http://"),
    ],
)  # fmt: skip
def test_an_option_in_another_form_is_refused(text, says):
    """The error shows the form that is wanted."""
    with pytest.raises(ValueError, match=says):
        server_from_option(text, {})


def test_half_of_an_options_credentials_are_refused():
    """The error names both variables."""
    with pytest.raises(ValueError, match=r"'eu' .* CONDUCTOR_AUTH_KEY_EU but none in CONDUCTOR_AUTH_SECRET_EU"):
        server_from_option("eu=http://eu/api", {"CONDUCTOR_AUTH_KEY_EU": "k"})


def test_options_are_checked_together():
    """Duplicates are found, and so are two names that would share one server's credentials."""
    environ = {"CONDUCTOR_AUTH_KEY_EU_1": "k", "CONDUCTOR_AUTH_SECRET_EU_1": "s"}
    options = ["eu-1=http://a/api", "eu_1=http://b/api"]

    with pytest.raises(ValueError, match="'eu-1' and 'eu_1' would both read CONDUCTOR_AUTH_KEY_EU_1"):
        servers_from_options(options, environ)
    with pytest.raises(ValueError, match="duplicate server name"):
        servers_from_options(["eu=http://a/api", "eu=http://b/api"], {})
    assert len(servers_from_options(options, {})) == 2
    apart = servers_from_options(["us=http://a/api", "eu-1=http://b/api"], environ)
    assert auth_of(apart) == [None, ("k", "s")]


# A file.


def write(tmp_path, text):
    """A file with that text."""
    path = tmp_path / "servers.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_may_say_all_that_code_can(tmp_path):
    """Every option has a key; credentials may stay in the environment; paths are relative to the file."""
    (tmp_path / "ca.pem").touch()
    path = write(
        tmp_path,
        """
        [[servers]]
        name = "eu"
        url = "https://eu/api"
        key = "k"
        secret = "s"
        weight = 2
        domain = "d"
        max_units = 5
        reserve = 1
        verify = "ca.pem"
        headers = { X-Gate = "open" }
        [[servers]]
        name = "us"
        url = "https://us/api"
        verify = false
        """,
    )
    eu, us = servers_from_toml(path, {"CONDUCTOR_AUTH_KEY_US": "k2", "CONDUCTOR_AUTH_SECRET_US": "s2"})

    assert eu == ServerSettings(
        "eu", "https://eu/api", auth=Credentials("k", "s"), weight=2, domain="d", max_units=5, reserve=1,
        verify=str(tmp_path / "ca.pem"), headers={"X-Gate": "open"},
    )  # fmt: skip
    assert us == ServerSettings("us", "https://us/api", auth=Credentials("k2", "s2"), verify=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"no \[\[servers\]\] table"), ("servers = []", r"no \[\[servers\]\] table"), ("servers = 7", "no"),
        ("[servers]\nname='a'", "no"), ("servers = [7]", r"server 1 must be a \[\[servers\]\] table"),
        ("= 7", "is not valid TOML.*line 1"), (b"\xff", "is not valid TOML"),
        ("[[servers]]\nurl='http://a'", "server 1 has no name"),
        ("[[servers]]\nname='a'", "'a' has no url"), ("[[servers]]\nname='a'\nurl='a'", "'a': url 'a'"),
        ("[[servers]]\nname='a'\nurl='http://a'\nwieght=2", "'wieght': did you mean 'weight'"),
        ("[[servers]]\nname='a'\nurl='http://a'\nzzzz=2", "'zzzz': known keys are name, url"),
        ("[[servers]]\nname='a'\nurl='http://a'\nweight=0", "'a': weight 0"),
        ("[[servers]]\nname='a'\nurl='http://a'\nweight=nan", "'a': weight nan"),
        ("[[servers]]\nname='a'\nurl='http://a'\nweight='2'", "'a': weight must be"),
        ("[[servers]]\nname='a'\nurl='http://a'\nheaders=2", "'a': headers must"),
        (f"[[servers]]\nname='a'\nurl='http://a'\nsecret='{SECRET}'", "'a': credentials with a secret but no key"),
        (f"[[servers]]\nname='a'\nurl='http://a'\nkey='{SECRET}'", "'a': credentials with a key but no secret"),
        (f"[[servers]]\nname='a'\nurl='http://a'\nkey=7\nsecret='{SECRET}'", "'a': key must be a str"),
        ("[[servers]]\nname=7\nurl='http://a'", "server 7: name must be a str"),
        ("[[servers]]\nname='a'\nurl='http://a'\n[[servers]]\nname='a'\nurl='http://b'", "duplicate server name 'a'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_its_name(tmp_path, text, says):
    """Each mistake gets one error with the file, the server and the way out, and without secrets."""
    with pytest.raises(ValueError, match=says) as caught:
        servers_from_toml(write(tmp_path, text), {})
    assert "servers.toml" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    """A missing file and a folder are both a mistake in the option, not a crash."""
    with pytest.raises(ValueError, match="No such file"):
        servers_from_toml(tmp_path / "missing.toml")
    with pytest.raises(ValueError, match="directory"):
        servers_from_toml(tmp_path)
