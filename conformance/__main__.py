"""``python -m conformance``, which torchrun can start."""

import sys

from conformance.cli import main

sys.exit(main())
