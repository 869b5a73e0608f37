//! Where models compute: the processor, or a CUDA GPU.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::Error;

/// Name of a device: `cpu`, or `cuda:N` for the GPU with index `N`.
///
/// Any name can be parsed in any build; [`DeviceName::open`] tells whether this build and this machine have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// The processor of this machine.
    #[default]
    Cpu,
    /// A CUDA GPU.
    Cuda {
        /// Its index, from 0.
        index: usize,
    },
}

impl DeviceName {
    /// The device itself.
    ///
    /// # Errors
    /// - [`Error::DeviceNotBuilt`] when this build cannot use such a device
    /// - [`Error::NoSuchGpu`] when the machine has no GPU with this index
    pub fn open(self) -> Result<Device, Error> {
        match self {
            #[cfg(feature = "flex")]
            Self::Cpu => Ok(crate::cpu()),
            #[cfg(not(feature = "flex"))]
            Self::Cpu => Err(Error::DeviceNotBuilt { device: self, feature: "flex" }),
            #[cfg(feature = "cuda")]
            Self::Cuda { index } => {
                // Opening a GPU that is not there panics inside the driver's binding.
                let n_found = n_gpus();
                if index < n_found { Ok(crate::cuda(index)) } else { Err(Error::NoSuchGpu { index, n_found }) }
            }
            #[cfg(not(feature = "cuda"))]
            Self::Cuda { .. } => Err(Error::DeviceNotBuilt { device: self, feature: "cuda" }),
        }
    }
}

/// CUDA GPUs of this machine; 0 without a driver.
#[cfg(feature = "cuda")]
pub fn n_gpus() -> usize {
    Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len()
}

impl fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda { index } => write!(formatter, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let cuda = |text: &str| text.strip_prefix("cuda:")?.parse().ok().map(|index| Self::Cuda { index });
        match text {
            "cpu" => Ok(Self::Cpu),
            _ => cuda(text).ok_or_else(|| Error::DeviceName(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["cpu", "cuda:0", "cuda:12"] {
            assert_eq!(name.parse::<DeviceName>().expect("a name").to_string(), name);
        }
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(matches!(wrong.parse::<DeviceName>(), Err(Error::DeviceName(name)) if name == wrong), "{wrong}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        let error = DeviceName::Cuda { index: 0 }.open().expect_err("not built");
        assert!(error.to_string().contains("cuda:0") && error.to_string().contains("feature `cuda`"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_that_is_not_there_is_an_error() {
        let index = n_gpus();
        assert!(matches!(DeviceName::Cuda { index }.open(), Err(Error::NoSuchGpu { n_found, .. }) if n_found == index));
    }
}
