"""`python -m ddgm` is the console script `ddgm`."""

from ddgm.cli import main

raise SystemExit(main())
