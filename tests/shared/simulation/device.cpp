// A CUDA device that computes nothing: what torch asks of libcudart and libcuda before it takes a device for
// present, and to move memory. Loaded before torch, these functions take the place of theirs.
#include <cstdlib>
#include <cstring>
#include <map>

static std::map<char *, size_t> pinned;  // start and size

static int allocate(void **memory, size_t size) { return (*memory = std::malloc(size + 1)) ? 0 : 2; }

static int allocate_pinned(void **memory, size_t size) {
  int error = allocate(memory, size);
  pinned[static_cast<char *>(*memory)] = size;
  return error;
}

#define SUCCEEDS(name) \
  int name() { return 0; }
#define CREATES(name) \
  int name(void **made) { return allocate(made, 16); }

extern "C" {
int cudaGetDeviceCount(int *count) { return *count = 1, 0; }
int cudaGetDevice(int *device) { return *device = 0, 0; }
int cudaDriverGetVersion(int *version) { return *version = 99000, 0; }
int cudaMemGetInfo(size_t *free, size_t *total) { return *free = *total = size_t(80) << 30, 0; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0, 0; }
int cudaDeviceGetAttribute(int *value, int, int) { return *value = 0, 0; }
int cudaGetDeviceProperties(char *properties, int) {
  std::strcpy(properties, "simulated");  // 256 characters; then numbers, in an order that depends on the version
  for (int place = 256; place < 640; place += 4) *reinterpret_cast<int *>(properties + place) = 8;
  return 0;
}
int cudaGetDeviceProperties_v2(char *properties, int device) { return cudaGetDeviceProperties(properties, device); }
int cudaMalloc(void **memory, size_t size) { return allocate(memory, size); }
int cudaHostAlloc(void **memory, size_t size, unsigned) { return allocate_pinned(memory, size); }
int cudaMallocHost(void **memory, size_t size) { return allocate_pinned(memory, size); }
int cudaPointerGetAttributes(int *kind, char *pointer) {
  auto next = pinned.upper_bound(pointer);
  *kind = next != pinned.begin() && (--next, pointer < next->first + next->second);  // of the host, or unknown
  return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int, void *) { return std::memcpy(to, from, size), 0; }
int cudaMemsetAsync(void *to, int value, size_t size, void *) { return std::memset(to, value, size), 0; }
int cudaStreamIsCapturing(void *, int *status) { return *status = 0, 0; }
int cudaStreamGetCaptureInfo(void *, int *status) { return *status = 0, 0; }
int cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) { return *flags = 0, *active = 1, 0; }
int cuCtxGetCurrent(void **context) { return allocate(context, 16); }

CREATES(cudaStreamCreateWithPriority) CREATES(cudaEventCreateWithFlags) CREATES(cuDevicePrimaryCtxRetain)

SUCCEEDS(cudaSetDevice) SUCCEEDS(cudaFree) SUCCEEDS(cudaFreeHost) SUCCEEDS(cudaDeviceSynchronize)
SUCCEEDS(cudaStreamSynchronize) SUCCEEDS(cudaStreamQuery) SUCCEEDS(cudaStreamWaitEvent) SUCCEEDS(cudaEventQuery)
SUCCEEDS(cudaEventRecord) SUCCEEDS(cudaEventRecordWithFlags) SUCCEEDS(cudaEventSynchronize)
SUCCEEDS(cudaEventDestroy) SUCCEEDS(cudaGetLastError) SUCCEEDS(cudaPeekAtLastError)
SUCCEEDS(cudaThreadExchangeStreamCaptureMode)

// Of these torch only takes the addresses.
SUCCEEDS(cuCtxSetCurrent) SUCCEEDS(cuDeviceGet) SUCCEEDS(cuDeviceGetAttribute) SUCCEEDS(cuFuncGetAttribute)
SUCCEEDS(cuFuncSetAttribute) SUCCEEDS(cuFuncSetCacheConfig) SUCCEEDS(cuGetErrorString)
SUCCEEDS(cuLaunchCooperativeKernel) SUCCEEDS(cuLaunchKernel) SUCCEEDS(cuLinkAddData_v2) SUCCEEDS(cuLinkComplete)
SUCCEEDS(cuLinkCreate_v2) SUCCEEDS(cuModuleGetFunction) SUCCEEDS(cuModuleLoad) SUCCEEDS(cuModuleLoadData)
SUCCEEDS(cuModuleLoadDataEx) SUCCEEDS(cuModuleUnload) SUCCEEDS(cuOccupancyMaxActiveBlocksPerMultiprocessor)
SUCCEEDS(cuPointerGetAttribute) SUCCEEDS(cuTensorMapEncodeTiled)
}
