"""The type checker behind the jaxtyping hook that conftest.py installs."""

from __future__ import annotations

import random
from unittest.mock import patch

# beartype draws which item of a sequence it looks at: from a generator of its own, not from everybody's
with patch.object(random, "getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype
    from beartype.door import is_bearable

    assert is_bearable([1], list[int])  # by now it has taken getrandbits

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for
