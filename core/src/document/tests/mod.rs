mod making;

mod convergence;
mod creates;
mod deletes;
mod direct;
mod fields;
mod hostile;
mod local;
mod mutations;
mod rolled;
mod voids;
