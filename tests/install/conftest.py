"""The chart rendered by real helm, and kubectl against a real API server."""

import pytest
from tests.install.chart import VALUES, Object, render


@pytest.fixture(params=VALUES, scope="session")
def rendered(request: pytest.FixtureRequest) -> list[Object]:
    """The chart's objects, once for every set of values."""
    return render(VALUES[request.param])
