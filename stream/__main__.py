"""`python -m rheobase.stream` is the command `rheo`."""

import sys

from rheobase.stream.cli import main

if __name__ == "__main__":
    sys.exit(main())
