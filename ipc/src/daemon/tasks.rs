//! The long-lived tasks of a daemon: each runs as long as the daemon, so the end of one is the end of the daemon.

use std::collections::HashMap;
use std::future::pending;

use thiserror::Error;
use tokio::task::{Id, JoinSet};

/// A task ended that runs as long as its daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the task `{0}` ended")]
pub struct TaskEnded(pub &'static str);

/// Named tasks. They are aborted when this is dropped.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task under a name that tells an administrator what it does.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.set.spawn(task).id(), name);
    }

    /// Waits until a task ends, by itself or by a panic. Without tasks it waits for ever.
    ///
    /// Cancel safe.
    pub async fn ended(&mut self) -> TaskEnded {
        let Some(ended) = self.set.join_next_with_id().await else { return pending().await };
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        TaskEnded(self.names.remove(&id).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_task_that_ended_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("lasting", pending());
        tasks.spawn("short", async {});
        assert_eq!(tasks.ended().await, TaskEnded("short"));
        tasks.spawn("failing", async { panic!("a fault") });
        assert_eq!(tasks.ended().await, TaskEnded("failing"));
    }
}
