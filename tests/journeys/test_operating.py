"""What operators look at: health, metrics, and what `up` says when it cannot start."""

import asyncio
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.journeys.service import run_program


def own_url(service, role):
    """Tell where a role serves its own metrics."""
    port = service.environment_of(role)["DOORBUSTER_PROCESS__METRICS_PORT"]
    return f"http://127.0.0.1:{port}"


async def metrics_at(shop, url):
    families = text_string_to_metric_families(await shop.text_at(f"{url}/metrics"))
    return {family.name for family in families}


async def test_every_role_serves_metrics_under_our_name(shop, service):
    await shop.buy(await shop.open_sale(), "ann")
    urls = [shop.run.admin, *(own_url(service, role) for role in ("api", "worker", "coordinator"))]
    for url in urls:
        names = await metrics_at(shop, url)
        assert any(name.startswith("doorbuster_") for name in names), url
        strangers = {
            name for name in names if not name.startswith(("doorbuster_", "process_", "python_"))
        }
        assert not strangers, url


async def test_every_listener_says_how_it_is(shop, service):
    roles = ("api", "worker", "coordinator")
    urls = [shop.run.public, shop.run.admin, *(own_url(service, role) for role in roles)]
    for url in urls:
        assert (await shop.ask("GET", f"{url}/livez")).body == {"status": "alive"}
        assert (await shop.ask("GET", f"{url}/readyz")).body == {"status": "ready"}
        assert (await shop.ask("GET", f"{url}/startupz")).body == {"status": "ready"}
    told = (await shop.ask("GET", f"{shop.run.admin}/readyz?verbose")).body
    stores = dict.fromkeys(("shard_0", "shard_1", "ledger", "redis"), "well")
    assert told == {"status": "ready", "checks": stores}


async def test_a_second_up_on_the_same_data_directory_is_refused(service, tmp_path):
    where = ["--data-dir", str(service.data_dir)]
    done = await asyncio.to_thread(
        run_program, "up", *where, "--port", "0", "--admin-port", "0", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert str(service.data_dir) in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_taken_port_is_named(service, tmp_path):
    port = str(urlsplit(service.run.admin).port)
    where = ["--data-dir", str(tmp_path / "data")]
    done = await asyncio.to_thread(
        run_program, "up", *where, "--port", "0", "--admin-port", port, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (5, "")
    assert port in done.stderr
    assert "--admin-port" in done.stderr
    assert "Traceback" not in done.stderr
