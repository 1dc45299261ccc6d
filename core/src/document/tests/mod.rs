mod making;

mod convergence;
mod deletes;
mod fresh;
mod hostile;
mod local;
mod mutations;
mod voids;
