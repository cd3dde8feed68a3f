import sys

from rheobase.stream.cli import main

sys.exit(main())
