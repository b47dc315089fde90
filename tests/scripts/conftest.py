"""The fixture of calls, for tests of scripts that need no account."""

from tests.calls import call as call
