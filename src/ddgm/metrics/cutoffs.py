"""Where evidence draws a line: for the measures, and for the figures that show them. Imports nothing."""

MEMORISED = 0.01  # of held-out images lie so close to a training image as what counts as a copy
SURE = 0.5  # the classifier's probability at which a digit counts as one
