"""What Pulumi runs for the package, with the package's folder as the first one to look for modules."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent)

from package.host import run  # noqa: E402

if __name__ == "__main__":
    run()
