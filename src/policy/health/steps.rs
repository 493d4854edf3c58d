//! Next steps as data: a command for whoever has a terminal, a button or a link on a page.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::job::control::Target;
use crate::job::{EndpointName, LaneName, Tenant};

/// What somebody does about an incident. Shown, it is the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// See what is wrong with the configuration.
    CheckConfig,
    /// Look at everything.
    Status,
    /// Start a worker for this lane.
    StartWorker(LaneName),
    /// Look at the jobs of a lane.
    Jobs(LaneName),
    /// Look at the dead letters of a lane.
    Letters(LaneName),
    /// Look at what may be called, of an endpoint and a tenant there, or of all.
    Limits(Option<EndpointName>, Option<Tenant>),
    /// Simulate how it goes on.
    Foresee,
    /// Hold it back for so long, in whole minutes.
    Pause(Target, Duration),
    /// Let it go on.
    Resume(Target),
    /// Make fewer calls of a tenant at an endpoint: so many percent of its limits, for so long, in whole minutes.
    Slow(EndpointName, Tenant, u32, Duration),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |time: &Duration| time.as_secs() / 60;
        match self {
            Self::CheckConfig => f.write_str("lanes config check"),
            Self::Status => f.write_str("lanes status"),
            Self::StartWorker(lane) => write!(f, "lanes worker --lane {lane}"),
            Self::Jobs(lane) => write!(f, "lanes jobs list --lane {lane}"),
            Self::Letters(lane) => write!(f, "lanes dead list --lane {lane}"),
            Self::Limits(endpoint, tenant) => {
                f.write_str("lanes limits list")?;
                endpoint.iter().try_for_each(|endpoint| write!(f, " --endpoint {endpoint}"))?;
                tenant.iter().try_for_each(|tenant| write!(f, " --tenant {}", Word(tenant.as_str())))
            }
            Self::Foresee => f.write_str("lanes plan --live"),
            Self::Pause(target, time) => {
                match target.parts() {
                    (Some(lane), ..) => write!(f, "lanes lane pause {lane}")?,
                    (None, endpoint, tenant) => {
                        f.write_str("lanes limits pause")?;
                        endpoint.iter().try_for_each(|endpoint| write!(f, " {endpoint}"))?;
                        tenant.iter().try_for_each(|tenant| write!(f, " --tenant {}", Word(tenant.as_str())))?;
                    }
                }
                write!(f, " --for {}m", minutes(time))
            }
            Self::Resume(target) => match target.parts() {
                (Some(lane), ..) => write!(f, "lanes lane resume {lane}"),
                (None, endpoint, tenant) => {
                    f.write_str("lanes limits resume")?;
                    endpoint.iter().try_for_each(|endpoint| write!(f, " {endpoint}"))?;
                    tenant.iter().try_for_each(|tenant| write!(f, " --tenant {}", Word(tenant.as_str())))
                }
            },
            Self::Slow(endpoint, tenant, percent, time) => {
                let (tenant, minutes) = (Word(tenant.as_str()), minutes(time));
                write!(f, "lanes limits slow {endpoint} --tenant {tenant} --percent {percent} --for {minutes}m")
            }
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One word for a shell: a tenant may be called anything, and people paste what they are shown.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '+');
        if !self.0.starts_with('-') && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        write!(f, "'{}'", self.0.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_a_command() {
        let step = |tenant: &str| Step::Limits(None, Some(Tenant::new(tenant).expect("legal"))).to_string();
        assert_eq!(step("acme"), "lanes limits list --tenant acme");
        assert_eq!(step("it's; rm -rf ~"), "lanes limits list --tenant 'it'\\''s; rm -rf ~'");
        assert_eq!(step("--yes"), "lanes limits list --tenant '--yes'");
    }

    #[test]
    fn a_pause_is_the_command_of_its_target() {
        let (lane, crm) = (LaneName::new("bulk").expect("legal"), EndpointName::new("crm").expect("legal"));
        let acme = Tenant::new("acme").expect("legal");
        let quarter = Duration::from_mins(15);
        let pause = |target| Step::Pause(target, quarter).to_string();
        assert_eq!(pause(Target::Lane(lane)), "lanes lane pause bulk --for 15m");
        assert_eq!(pause(Target::Tenant(acme.clone())), "lanes limits pause --tenant acme --for 15m");
        assert_eq!(
            pause(Target::TenantAt(crm.clone(), acme.clone())),
            "lanes limits pause crm --tenant acme --for 15m"
        );
        let slow = Step::Slow(crm, acme, 50, Duration::from_hours(1));
        assert_eq!(slow.to_string(), "lanes limits slow crm --tenant acme --percent 50 --for 60m");
    }
}
