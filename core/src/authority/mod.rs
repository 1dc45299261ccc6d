//! The control log's rule: who may do what, judged alike by every replica.
