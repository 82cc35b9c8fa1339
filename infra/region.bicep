// The service in a second region, beside the first: the same identity, ACS resource, mappings, registry and secrets.
// Deployed into the first one's resource group, after it (docs/scaling.md). Any caller may be served by either.
import { Configuration } from 'api.bicep'
import { region } from 'checks.bicep'

@minLength(1)
@description('The second region')
param location string

@description('What the first region is deployed with: SERVICE_API_CONFIGURATION')
param configuration Configuration

@description('The image that the first region runs')
param image string

@description('True once this region has its container app: what was set on it by hand is kept')
param exists bool = false

@description('Name of the Log Analytics workspace')
param workspaceName string = 'log-${configuration.token}'

// The region's first letters and a hash of it: names stay apart and short.
var short = '${take(region(location), 3)}${take(uniqueString(region(location)), 4)}'
var name = 'ca-api-${short}-${configuration.token}'

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' existing = {
  name: workspaceName
}

module containerEnvironment 'modules/environment.bicep' = {
  name: 'environment-${short}'
  params: {
    name: 'cae-${short}-${configuration.token}'
    location: location
    tags: configuration.tags
    workspaceId: workspace.id
    infrastructureSubnetId: ''
    internal: false
    zoneRedundant: false
    onlyFrontDoor: configuration.onlyFrontDoor
  }
}

module api 'api.bicep' = {
  name: 'api-${short}'
  params: {
    #disable-next-line what-if-short-circuiting // only the environment's id is of this deployment
    configuration: union(configuration, {
      name: name
      token: '${short}-${configuration.token}'
      location: location
      variables: union(configuration.variables, {
        COSMOS_PREFERRED_REGIONS: empty(configuration.variables.?COSMOS_PREFERRED_REGIONS) ? '' : region(location)
      })
      environmentId: containerEnvironment.outputs.id
      // azd looks for one container app with the service's tag: the first region's.
      tags: union(configuration.tags, { 'azd-service-name': 'none' })
      jobs: union(configuration.jobs, {
        commands: 'caj-commands-${short}-${take(configuration.token, 8)}'
        reconcileSchedule: '' // the first region's job does it
      })
    })
    image: image
    exists: exists
  }
}

output environmentId string = containerEnvironment.outputs.id
output hostName string = '${name}.${containerEnvironment.outputs.defaultDomain}'
