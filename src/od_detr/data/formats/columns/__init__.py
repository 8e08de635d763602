"""The lists of a COCO file as flat columns: quickly, or carefully where something is wrong."""
