mod making;

mod convergence;
mod creates;
mod deletes;
mod direct;
mod hostile;
mod local;
mod mutations;
mod rolled;
mod voids;
