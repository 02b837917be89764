"""Networks, data sets and the paper's tables that come with robnet-fx: modules, tensors, figures, no bound code."""
