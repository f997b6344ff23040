"""What processes show of themselves: logs, metrics, health. Observers of the layers below, which know none of this."""
