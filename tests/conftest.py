"""Under CI every property test draws the same examples each time, so that a red run can be repeated.

No example has a deadline: on a shared machine it would fail by another process' doing; a test as a whole has one."""

import os

from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
