"""The concept bank: ground-truth concepts of every validation token, without a judge."""
