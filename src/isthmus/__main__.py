"""``python -m isthmus``: the same as the ``isthmus`` command."""

from isthmus.cli.__main__ import main

if __name__ == "__main__":
    main(prog_name="isthmus")
