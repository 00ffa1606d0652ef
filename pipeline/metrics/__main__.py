"""`python -m pipeline.metrics` prints all registered metrics, as a table in Markdown."""

from pipeline.metrics.registry import table
from pipeline.runtime.startup import begin

if __name__ == "__main__":
    begin()
    print(table())
