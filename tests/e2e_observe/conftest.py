"""The fixtures and the harness of tests/e2e, and a Prometheus that scrapes a router through a scripted scenario.

Run: POINTSMAN_BINARY=build/…/pointsman /usr/bin/python3 -m pytest tests/e2e_observe
"""

import importlib.util
import os
import sys

import pytest

_HERE = os.path.dirname(os.path.abspath(__file__))
_END_TO_END = os.path.join(os.path.dirname(_HERE), "e2e")
ROOT = os.path.dirname(os.path.dirname(_HERE))
sys.path[:0] = [_HERE, _END_TO_END, os.path.join(ROOT, "deploy", "prometheus"), os.path.join(ROOT, "deploy", "grafana")]

# By its path: two files called conftest cannot both be imported by name.
_spec = importlib.util.spec_from_file_location("end_to_end_fixtures", os.path.join(_END_TO_END, "conftest.py"))
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)

no_pg_environment = _fixtures.no_pg_environment
pytest_runtest_call = _fixtures.pytest_runtest_call
folder = _fixtures.folder
dependencies = _fixtures.dependencies
world = _fixtures.world
secrets = _fixtures.secrets
router_certificate = _fixtures.router_certificate


@pytest.fixture(scope="session")
def stage(world, folder, secrets, router_certificate):
    """A router that has been through everything, and the Prometheus that saw it. The router still runs."""
    from scenario import Stage  # after the paths above

    made = Stage(world, folder, secrets, router_certificate)
    try:
        yield made.play()
    finally:
        made.stop()
