"""`python -m pipeline.metrics` prints all registered metrics, as a table in Markdown."""

from pipeline.metrics.registry import table

if __name__ == "__main__":
    print(table())
