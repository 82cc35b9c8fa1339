// How the text of an azd environment becomes values. azd drops a boolean or a number that it can't read and deploys the
// default in silence (https://github.com/Azure/azure-dev: armParameterFileValue), so main.bicep takes text and reads it here.

@export()
@description('true or false, also 1 or 0, in any case; anything else stops the deployment')
func flag(name string, text string) bool =>
  contains(['true', '1'], toLower(trim(text)))
    ? true
    : contains(['', 'false', '0'], toLower(trim(text))) ? false : fail('${name} must be true or false, not "${text}".')

@export()
@description('A whole number of at most six digits; anything else stops the deployment')
func number(name string, text string) int =>
  !empty(trim(text)) && length(trim(text)) < 7 && empty(filter(
      map(range(0, length(trim(text))), place => substring(trim(text), place, 1)),
      digit => !contains('0123456789', digit)
    ))
    ? int(trim(text))
    : fail('${name} must be a whole number, not "${text}".')

@export()
@description('What stands between commas, without blanks and empty places; one that stands twice stops the deployment')
func list(name string, text string) string[] =>
  length(union(items(text), items(text))) == length(items(text))
    ? items(text)
    : fail('${name} names one of its values twice: "${text}".')

func items(text string) string[] => filter(map(split(text, ','), each => trim(each)), each => !empty(each))

@export()
@description('NAME=VALUE pairs between commas, as an object; a value without a name stops the deployment')
func pairs(name string, text string) object =>
  empty(filter(list(name, text), each => indexOf(each, '=') < 1))
    ? toObject(
        list(name, text),
        each => trim(split(each, '=')[0]),
        each => trim(substring(each, indexOf(each, '=') + 1))
      )
    : fail('${name} must be NAME=VALUE pairs separated by commas, not "${text}".')
