"""The compiled pipeline: up to date, valid for Kubeflow's parsers, with the settings of each step for a cluster."""

import re

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components.convert.component import convert
from components.embed.component import embed
from components.evaluate.component import evaluate
from components.fingerprint.component import fingerprint
from components.launch_job.component import launch_job
from components.negatives.component import negatives
from components.promote.component import promote
from components.train.component import train
from components.validate.component import validate
from helpers.paths import ROOT
from pipelines.compile import compile_pipeline
from pipelines.profiles import DEFAULT_PROFILE, PROFILES
from rarft.errors import InputError

WITHOUT_ACCELERATOR = {"fingerprint", "convert", "validate", "negatives", "embed", "promote"}
WITH_ACCELERATORS = {"train", "evaluate"}
STEPS = WITHOUT_ACCELERATOR | WITH_ACCELERATORS


@pytest.fixture(scope="module", params=PROFILES)
def compiled(request, tmp_path_factory):
    """Name, pipeline and platform of each profile."""
    path = tmp_path_factory.mktemp("compiled") / "rarft.yaml"
    compile_pipeline(str(path), request.param)
    return request.param, *yaml.load_all(path.read_text(), yaml.CSafeLoader)


@pytest.fixture(scope="module")
def committed():
    """Pipeline and platform in the repository."""
    return tuple(yaml.load_all((ROOT / "pipelines" / "rarft.yaml").read_text(), yaml.CSafeLoader))


def executors(platform):
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): settings for name, settings in found.items()}


def containers(pipeline):
    return {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
    }


def test_compiled_file_is_current(tmp_path):
    compile_pipeline(str(tmp_path / "rarft.yaml"))
    compiled = (tmp_path / "rarft.yaml").read_text()
    assert compiled == (ROOT / "pipelines" / "rarft.yaml").read_text(), "run `make generate`"


def test_compiled_profiles_are_valid(compiled):
    _, pipeline, platform = compiled
    spec = json_format.ParseDict(pipeline, PipelineSpec())
    assert len(spec.root.dag.tasks) == len(STEPS)
    json_format.ParseDict(platform, PlatformSpec())
    for settings in executors(platform).values():
        json_format.ParseDict(settings, KubernetesExecutorConfig())


def test_placeholders_refer_to_parameters(compiled):
    _, pipeline, platform = compiled
    inputs = set(pipeline["root"]["inputDefinitions"]["parameters"])
    for name, container in containers(pipeline).items():
        task = pipeline["root"]["dag"]["tasks"][name]
        for placeholder in re.findall(
            r"inputs\.parameters\['(.+?)'\]", str([container["image"], container["resources"]])
        ):
            assert task["inputs"]["parameters"][placeholder]["componentInputParameter"] in inputs
        assert set(re.findall(r"'componentInputParameter': '(\w+)'", str(executors(platform)[name]))) <= inputs


def test_task_dependencies(committed):
    tasks = committed[0]["root"]["dag"]["tasks"]
    assert {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()} == {
        "fingerprint": set(),
        "convert": {"fingerprint"},
        "validate": {"fingerprint", "convert"},
        "negatives": {"fingerprint", "validate"},
        "embed": {"fingerprint", "negatives"},
        "train": {"fingerprint", "negatives", "embed"},
        "evaluate": {"fingerprint", "validate", "train"},
        "promote": {"train", "evaluate"},
    }
    # Evaluation is cached by the content of data and checkpoints, not by their paths.
    inputs = tasks["evaluate"]["inputs"]["parameters"]
    for name, producer in {"cache_key": "fingerprint", "checkpoint_cache_key": "train"}.items():
        assert inputs[name]["taskOutputParameter"] == {"outputParameterKey": "cache_key", "producerTask": producer}


def test_caching_and_retries(committed):
    tasks = committed[0]["root"]["dag"]["tasks"]
    assert {name for name in STEPS if tasks[name]["cachingOptions"].get("enableCache")} == {
        "convert",
        "validate",
        "negatives",
        "embed",
        "evaluate",
    }
    assert {name: task["retryPolicy"]["maxRetryCount"] for name, task in tasks.items() if "retryPolicy" in task} == (
        dict.fromkeys(WITHOUT_ACCELERATOR, 2)
    )


@pytest.mark.parametrize(
    ("step", "image", "cpu", "memory"),
    [
        ("fingerprint", "validate_image", "cpu", "memory"),
        ("convert", "validate_image", "cpu", "memory"),
        ("validate", "validate_image", "cpu", "memory"),
        ("negatives", "steps_image", "cpu", "memory"),
        ("embed", "steps_image", "cpu", "memory"),
        ("train", "train_image", "train_cpu", "train_memory"),
        ("evaluate", "train_image", "train_cpu", "train_memory"),
        ("promote", "steps_image", "cpu", "memory"),
    ],
)
def test_image_and_resources_are_parameters(committed, step, image, cpu, memory):
    container = containers(committed[0])[step]
    placeholder = "{{{{$.inputs.parameters['pipelinechannel--{}']}}}}".format
    assert container["image"] == placeholder(image)
    expected = {"resourceCpuLimit": placeholder(cpu), "resourceMemoryLimit": placeholder(memory)}
    if step in WITH_ACCELERATORS:
        expected["accelerator"] = {
            "resourceType": placeholder("accelerator"),
            "resourceCount": placeholder("accelerators"),
        }
    assert container["resources"] == expected


def test_secrets_time_limits_nodes_and_volumes(compiled):
    profile, _, platform = compiled
    for name, settings in executors(platform).items():
        secrets = {
            secret["secretNameParameter"]["componentInputParameter"]: secret for secret in settings["secretAsEnv"]
        }
        assert all(secret["optional"] for secret in secrets.values())
        assert set(secrets) == {
            "store_secret",
            *(["hub_secret"] if name in {"negatives", "embed", "train", "launch-job", "evaluate"} else []),
            *(["tracking_secret"] if name == "train" else []),
            *(["model_secret"] if name == "negatives" else []),
        }
        chosen = PROFILES[profile]
        training = dict.fromkeys(("train", "launch-job"), chosen.training_hours)
        hours = {**training, "evaluate": chosen.evaluation_hours}.get(name, chosen.step_hours)
        assert int(settings["activeDeadlineSeconds"]) == hours * 3600
        node_settings = {"nodeSelector", "nodeAffinity", "tolerations", "emptyDirMounts"} & settings.keys()
        assert len(node_settings) == (4 if name in WITH_ACCELERATORS else 0)
        if name in WITH_ACCELERATORS:
            (shared_memory,) = settings["emptyDirMounts"]
            assert (shared_memory["mountPath"], shared_memory["medium"]) == ("/dev/shm", "Memory")
            assert shared_memory["sizeLimit"] == chosen.shared_memory
        mounts = [mount["mountPath"] for mount in settings.get("pvcMount", [])]
        assert mounts == (["/data"] if profile == "pvc" else [])


def test_run_time_limit_and_lifetime(compiled):
    profile, pipeline, platform = compiled
    chosen = PROFILES[profile]
    config = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert int(config["activeDeadlineSeconds"]) == chosen.run_hours * 3600
    assert int(config["resourceTtlOnCompletion"]) == chosen.kept_hours * 3600
    # The limit of the run is longer than all attempts of all steps, and that of retries longer than all attempts.
    steps_hours = len(WITHOUT_ACCELERATOR) * (chosen.retries + 1) * chosen.step_hours
    assert chosen.run_hours > chosen.training_hours + chosen.evaluation_hours + steps_hours
    for task in pipeline["root"]["dag"]["tasks"].values():
        if policy := task.get("retryPolicy"):
            assert int(policy["backoffMaxDuration"][:-1]) > (chosen.retries + 1) * chosen.step_hours * 3600


@pytest.mark.parametrize("kind", ["trainjob", "pytorchjob"])
def test_profile_launches_job(tmp_path, kind):
    compile_pipeline(str(tmp_path / "rarft.yaml"), kind)
    pipeline, _ = yaml.load_all((tmp_path / "rarft.yaml").read_text(), yaml.CSafeLoader)
    task = pipeline["root"]["dag"]["tasks"]["launch-job"]
    assert task["inputs"]["parameters"]["job"]["runtimeValue"]["constant"] == "rarft-{{$.pipeline_job_uuid}}"
    assert task["inputs"]["parameters"]["kind"]["runtimeValue"]["constant"] == kind
    assert "retryPolicy" not in task  # a retry would restart a job that a user cancelled
    assert "accelerator" not in containers(pipeline)["launch-job"]["resources"]
    producer = pipeline["root"]["dag"]["tasks"]["evaluate"]["inputs"]["parameters"]["checkpoint"]
    assert producer["taskOutputParameter"]["producerTask"] == "launch-job"


def test_compile_rejects_unknown_profile(tmp_path):
    with pytest.raises(InputError, match=f"no such profile; use one of .*{DEFAULT_PROFILE}"):
        compile_pipeline(str(tmp_path / "x.yaml"), "gigantic")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "component",
    [fingerprint, convert, validate, negatives, embed, train, launch_job, evaluate, promote],
    ids=lambda each: each.name,
)
def test_component_page_lists_inputs_and_outputs(component):
    page = (ROOT / "components" / component.name.replace("-", "_") / "README.md").read_text()
    spec = component.component_spec
    names = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert names == [*spec.inputs, *spec.outputs]


def test_kubeflow_page_lists_parameters(committed):
    page = (ROOT / "docs" / "kubeflow.md").read_text()
    table = page.split("## Parameters\n")[1].split("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(committed[0]["root"]["inputDefinitions"]["parameters"])
