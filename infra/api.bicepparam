// What azd deploys the service with, once it has built the image: outputs of main.bicep, and what azd and the hook
// predeploy find out. Without one of them nothing is deployed.
using './api.bicep'

param configuration = json(readEnvironmentVariable('SERVICE_API_CONFIGURATION'))
param image = readEnvironmentVariable('SERVICE_API_IMAGE_NAME')
param exists = bool(readEnvironmentVariable('SERVICE_API_RESOURCE_EXISTS'))
