"""Reads metrics as text with Prometheus' own parsers and prints what they are as JSON.

    read_metrics.py prometheus|openmetrics FILE
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

parsers = {"prometheus": prometheus, "openmetrics": openmetrics}
with open(sys.argv[2], encoding="utf-8") as file:
    families = list(parsers[sys.argv[1]](file.read()))
print(
    json.dumps(
        [
            {
                "name": family.name,
                "type": family.type,
                "unit": family.unit,
                "help": family.documentation,
                "samples": [
                    {"name": sample.name, "labels": sample.labels, "value": str(sample.value)}
                    for sample in family.samples
                ],
            }
            for family in families
        ]
    )
)
