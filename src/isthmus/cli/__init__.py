"""The ``isthmus`` command. A front end: it uses public names of the package only."""
