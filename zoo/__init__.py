"""Networks, data sets and recipes that come with robnet-fx: plain nn.Modules and tensors, no bound code."""
