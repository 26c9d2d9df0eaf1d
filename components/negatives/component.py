"""Refusable queries for answerable data as a Kubeflow component."""

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def negatives(
    data: dsl.Input[dsl.Dataset],
    negatives: str,
    encoder: str,
    cache_key: str,
    training_data: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> int:
    """Add refusable queries to the training data; without settings, the data is left as it is.

    Args:
        data: Validated data.
        negatives: Flags of `rarft negatives` as YAML; empty to add none.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
        cache_key: Fingerprint of the inputs; cached results are reused only if it is the same.
        training_data: riq.jsonl with the added queries, riq.rejected.jsonl, riq.report.html and riq.report.json.
        report: Report on the added queries as an HTML page; without settings, the one of validation.

    Returns:
        Number of added queries.
    """
    from components.runtime import copy_report, run_component
    from rarft import steps

    with run_component("negatives"):
        added = steps.add_negatives_from_yaml(data.path, training_data.path, negatives, encoder)
        copy_report(training_data, report, steps.NEGATIVES_PAGE)
    return added
