"""One Conductor server without I/O: calls and answers as values, what an answer means, operations as generators."""
