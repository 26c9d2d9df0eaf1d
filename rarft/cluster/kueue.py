"""Kueue's names: a job with the label of a queue stays suspended until Kueue admits its Workload."""

GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"
WORKLOADS = "workloads"
QUEUE_LABEL = f"{GROUP}/queue-name"
JOB_UID_LABEL = f"{GROUP}/job-uid"  # of a Workload
