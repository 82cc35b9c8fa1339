"""Ids of ACS users for tests: of the form that ACS gives, and readable."""

import re

RESOURCE = "0a1b2c3d-0000-4000-8000-00000000acc5"


def acs_id(name: object) -> str:
    """A well-formed id whose own part is `name`; the same for the same name."""
    return f"8:acs:{RESOURCE}_{re.sub('[^0-9A-Za-z_-]', '-', str(name))}"
