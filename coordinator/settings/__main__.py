"""``python -m coordinator.settings``: write the reference page to stdout."""

import sys

from coordinator.settings.reference import reference_page

sys.stdout.write(reference_page())
