"""A Ray cluster (`pip install '.[ray]'`): its nodes, what each has room for, and what they have."""

import logging
import os
from typing import Any

from sae_repro.errors import StudyError
from sae_repro.nodefacts import Facts, check_node, facts, warnings_on
from sae_repro.numerics.kernels import CHOSEN, PORTABLE
from sae_repro.progress import say
from sae_repro.resources import Resources

ADDRESS = "SAE_REPRO_RAY_ADDRESS"
ANSWER_SECONDS = 300.0  # for a node to say what is installed there


class Cluster:
    """The nodes, and what each of them was found to have."""

    def __init__(self, asked: Resources, modules: tuple[str, ...]) -> None:
        """Connect; StudyError where there is none. `modules` are those of the jobs."""
        self.ray, self.dashboard = ray, _ = _connected()
        self.asked, self.modules = asked, modules
        self.here = facts(modules)
        self.own_id = ray.get_runtime_context().get_node_id()
        self.environment = {"env_vars": _kernels()}

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's records of the nodes that are alive."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """Jobs that can run at the same time."""
        return sum(self.asked.fit(node["Resources"]) for node in self.nodes())

    def on(self, node_id: str) -> Any:
        """Ray's way to name one node for a task."""
        from ray.util.scheduling_strategies import (  # type: ignore[import-not-found,unused-ignore]
            NodeAffinitySchedulingStrategy,
        )

        return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)

    def check_nodes(self) -> None:
        """Say what the cluster is; StudyError before any job where nodes can't carry them out."""
        nodes = [node for node in self.nodes() if self.asked.fit(node["Resources"])]
        if not nodes:
            there = "; ".join(_described(node) for node in self.nodes())
            raise StudyError(
                f"SAE_REPRO_RESOURCES = {self.asked}: no node of the cluster has so much ({there})"
            )
        say(f"ray: {len(nodes)} nodes, {self.room()} jobs at a time; {self.dashboard}")
        ask = self.ray.remote(num_cpus=0, max_retries=0, runtime_env=self.environment)(facts)
        asked = {
            ask.options(scheduling_strategy=self.on(node["NodeID"])).remote(self.modules): node
            for node in nodes
        }
        ended, late = self.ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        faults = []
        for answer in ended:
            name = str(asked[answer].get("NodeManagerAddress"))
            try:
                found: Facts = value_of(self.ray, answer)
                check_node(found, self.here, f"{found.node} ({name})")
            except StudyError as fault:
                faults.append(str(fault))
            except self.ray.exceptions.RayError as error:
                say(f"ray: warning: node {name} does not answer ({type(error).__name__})")
            else:
                for line in warnings_on(found, self.here, f"{found.node} ({name})"):
                    say(f"ray: warning: {line}")
        if faults:
            raise StudyError("\n".join(faults))
        for answer in late:
            name = str(asked[answer].get("NodeManagerAddress"))
            say(f"ray: warning: node {name} has not answered in {ANSWER_SECONDS:.0f} s")


def _kernels() -> dict[str, str]:
    """The kernels of this process, as environment: a node starts its workers with its own."""
    return {name: os.environ[name] for name in (CHOSEN, *PORTABLE) if name in os.environ}


def _connected() -> tuple[Any, str]:
    """Ray, connected with its cluster, and where its dashboard is, in words; StudyError without."""
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise StudyError(
            f"SAE_REPRO_EXECUTOR = ray: ray can't be imported ({error}); pip install '.[ray]' in "
            "the repository's root"
        ) from None
    address = os.environ.get(ADDRESS) or os.environ.get("RAY_ADDRESS") or None
    if address and address.startswith("ray://"):
        raise StudyError(
            f"{ADDRESS} = {address}: files travel from a node of the cluster; run this on one "
            "(`ray start --address=HOST:6379` makes this machine one), with HOST:6379 as address"
        )
    try:
        context = ray.init(
            address=address,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # of many kinds
        raise StudyError(
            f"SAE_REPRO_EXECUTOR = ray: no cluster ({' '.join(str(error).split())[:200]}); "
            f"`ray start --head` starts one here, {ADDRESS} names another"
        ) from None
    url = context.dashboard_url
    return ray, f"dashboard http://{url}" if url else "no dashboard"


def value_of(ray: Any, ended: Any) -> Any:
    """The value of a task; its own error as it is, a RayError where its worker or node is gone."""
    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ModuleNotFoundError) or "failed to import" in str(error):
            raise StudyError(
                f"SAE_REPRO_EXECUTOR = ray: a node cannot import this program "
                f"({' '.join(str(cause or error).split())[-200:]}); install the same environment "
                "on each node before `ray start`"
            ) from None
        if isinstance(cause, ray.exceptions.RayError):  # of a question to the depot
            raise cause from None
        raise cause if isinstance(cause, Exception) else error from None


def _described(node: dict[str, Any]) -> str:
    found = node["Resources"]
    return (
        f"{node.get('NodeManagerAddress')}: cpus={found.get('CPU', 0):g} "
        f"gpus={found.get('GPU', 0):g} memory={found.get('memory', 0) / 1e9:.1f}GB"
    )
