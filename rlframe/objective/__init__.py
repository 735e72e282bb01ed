"""The objective of a step: the algorithm's loss, the KL to a reference policy, off-policy corrections."""
