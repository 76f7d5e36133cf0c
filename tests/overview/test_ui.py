"""`caltech ui`: MLflow's page, with our columns, at a port that is free."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.request import urlopen

import pytest

from caltech.errors import CaltechError, InputError
from caltech.overview import ui, view
from tests.forks import TINY, places


class Client:
    """What a store's experiment has, and what it is told."""

    def __init__(self, **tags: str) -> None:
        self.tags, self.told = tags, []

    def get_experiment(self, experiment_id: str) -> "Client":
        return self

    def set_experiment_tag(self, experiment_id: str, name: str, value: str) -> None:
        self.tags[name] = value
        self.told.append(name)


def shown(client: Client) -> Client:
    view.show(SimpleNamespace(client=client, experiment_id="1"))
    return client


def test_the_page_has_accuracy_first_and_is_told_once():
    client = shown(Client())
    assert client.tags["mlflow.experimentKind"] == "custom_model_development"
    kept = json.loads(client.tags["mlflow.sharedViewState.caltech"])
    assert isinstance(kept["name"], str) and isinstance(kept["createdAt"], int)  # as MLflow needs
    state = json.loads(kept["state"])
    assert state["orderByKey"] == state["selectedColumns"][0] == "metrics.`val/best_accuracy`"
    assert state["orderByAsc"] is False
    assert state["compareRunCharts"][0]["metricKey"] == "val/accuracy"
    sections = [section["uuid"] for section in state["compareRunSections"]]
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {*sections}
    assert len(client.tags["mlflow.sharedViewState.caltech"]) < 20_000  # MLflow's limit
    client.told.clear()
    assert shown(client).told == []


def test_what_a_user_chose_stays():
    assert shown(Client(**{"mlflow.experimentKind": "x"})).tags["mlflow.experimentKind"] == "x"


def test_a_port_that_is_taken_is_told_and_the_next_is_taken(capsys):
    with socket.socket() as other:
        other.bind((ui.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        assert ui.free_port(taken) > taken
    assert f"Port {taken} is taken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("tracking.uri=sqlite:////nowhere/x.db", "nothing was tracked yet"),
        ("port=80", "from 1024"),
        ("port=x", "from 1024"),
        ("study=x", "all studies. Leave it out, and type tags.study"),
        ("tracking=none", "Leave it out"),
    ],
)
def test_what_cannot_be_shown_is_one_message(word, told):
    with pytest.raises(InputError, match=told):
        ui.main([word])


def test_a_server_that_does_not_start_is_one_message(monkeypatch):
    monkeypatch.setattr(ui.sys, "executable", "/bin/false")
    with (
        pytest.raises(CaltechError, match="server on port 5000 ended;"),
        ui.serving("sqlite:////x", 5000),
    ):
        pass


def closes(port: int, seconds: float = 10.0) -> bool:
    """Whether nobody listens there any more, after some seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as own:
            if own.connect_ex((ui.HOST, port)):
                return True
        time.sleep(0.1)
    return False


@pytest.mark.slow  # 20 s each: MLflow's own server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_the_page_answers_until_the_command_ends_however_it_does(tmp_path, forks, number):
    own = places(tmp_path)
    forks.run([*TINY, *own, "num_epochs=1"])
    process = subprocess.Popen(
        [sys.executable, "-m", "caltech", "ui", "port=5960", *own[3:]], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    said = [process.stdout.readline() for _ in range(4)]
    (port,) = re.findall(r"http://127.0.0.1:(\d+)/#/experiments/1/runs\?", "".join(said))
    assert b"<html" in urlopen(f"http://127.0.0.1:{port}/").read()
    os.kill(process.pid, number)
    rest, _ = process.communicate(timeout=30)
    is_asked = number == signal.SIGINT
    assert process.returncode == (130 if is_asked else -number)
    assert ("The page is closed." in rest) is is_asked
    assert closes(int(port))
