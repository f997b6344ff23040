"""The demo on a real broker: processes of its own, the same checks, the same lies caught."""

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.cli.demo import lies
from pipeline.cli.demo.cluster import ClusterNode
from pipeline.errors import Fatal

pytestmark = pytest.mark.kafka


def test_the_whole_story(bootstrap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "ledger"
    arguments = ["demo", "--rows", "80", "--shards", "2", "--json", "--kafka", bootstrap, "--keep", str(kept)]
    code = main.run(arguments)
    out = capsys.readouterr()
    assert code == 0, out.out + out.err
    document = json.loads(out.out)
    assert document["held"] is True
    assert document["phase_1"]["transactions"] + document["phase_2"]["transactions"] == 80
    assert document["phase_1"]["crossed_shards"] > 0
    assert document["refused_roots"] == document["balances_that_differ"] == 0
    assert document["proof"]["holds"]
    assert document["absence"]["forgery_refused"]
    assert document["audit"]["ok"]
    assert document["audit"]["figures"]["unsigned_blocks"] == document["audit"]["figures"]["in_flight"] == 0
    assert len(document["lies"]) == len(lies.TOLD)
    assert all(lie["caught"] for lie in document["lies"])
    assert main.run(["audit", str(kept)]) == 0  # the topics are as they were


def test_a_process_that_ends_ends_the_demo(bootstrap: str, tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    assert main.run(["init", str(root), "--shards", "1", "--kafka", bootstrap]) == 0
    (root / "keys" / "attestor.json").unlink()
    node = ClusterNode(root)
    try:
        with pytest.raises(Fatal, match=r"synchronizer ended with code 2: .*attestor\.json"):
            node.run_until(lambda: False, 60_000)
    finally:
        node.close()
