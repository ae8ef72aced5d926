"""The concept bank: which concepts each validation token carries, without a judge."""
