mod making;

mod convergence;
mod deletes;
mod hostile;
mod local;
mod mutations;
mod voids;
