import pytest

from tests.small import bounded


@pytest.fixture
def net(request):
    """In float64, some samples active, some certified, some wrong, at the module's EPS if it has one; the shared
    network is put back."""
    eps = getattr(request.module, "EPS", 0.15)
    made = bounded(eps=eps, fit=60).double()
    made.set_eps(eps)
    yield made
    made.float()
