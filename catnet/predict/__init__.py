"""From a labelled scan and a new one to a mask on the new one's own grid."""
