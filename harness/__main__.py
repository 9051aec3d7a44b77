"""`python -m harness` is `decbench`."""

import sys

from harness.cli import main

sys.exit(main())
