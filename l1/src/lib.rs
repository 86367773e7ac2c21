//! Settlement on Bitcoin: scripts, transactions, data envelopes and the nodes that enforce them.
