"""``python -m isthmus.worker FD [LIMITS [STDOUT STDERR]]``: serve a host over a socket.

``python -m isthmus.worker --fork-server FD [MODULE...]``: fork a worker for each request, after
importing the modules.
"""

import sys

from isthmus.worker import child

if __name__ == "__main__":
    arguments: list[str] | None = sys.argv[1:]
    if arguments and arguments[0] == "--fork-server":
        from isthmus.worker import zygote

        arguments = zygote.main(arguments[1:])  # goes on here in each child
    if arguments is not None:
        child.main(arguments)
