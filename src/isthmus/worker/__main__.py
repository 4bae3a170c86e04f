"""``python -m isthmus.worker FD [LIMITS [STDOUT STDERR]]``: serve one session over a socket."""

import sys

from isthmus.worker.child import main

if __name__ == "__main__":
    main(sys.argv[1:])
