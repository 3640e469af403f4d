"""What a project of models says: cards, tags and the context of a run, in madengine's formats."""
